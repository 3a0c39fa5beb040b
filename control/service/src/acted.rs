//! Which function of a lane took an event: what a trace says beside the outputs. It changes no decision.

/// A function of CPM, as far as one event shows it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Function {
    /// The Participating Function of the sender.
    Originating,
    /// The Participating Function of the addressee.
    Terminating,
    /// A Participating Function, inside a dialog: of one or the other.
    Participating,
    /// The Controlling Function.
    Controlling,
    /// The registrar, with its subscriptions.
    Registrar,
}

/// What became of the last event.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Acted {
    /// Who took it; `None`: nobody did, or it was refused before anybody was chosen.
    pub function: Option<Function>,
    /// Where devices of the addressee were chosen: how many, and of how many contacts that are registered.
    pub devices: Option<(usize, usize)>,
}

impl Acted {
    pub(crate) fn by(&mut self, function: Function) {
        self.function = Some(function);
    }
}
