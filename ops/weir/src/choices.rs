//! What the command line says instead of the configuration.

use crate::Driver;
use crate::config::Config;

/// Options of whatever starts a node.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(crate) struct Choices {
    /// What moves packets.
    #[arg(long, value_enum)]
    pub(crate) driver: Option<Driver>,
    /// How many threads move media: one on each core in turn, from the second one on.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) shards: Option<u16>,
}

impl Choices {
    /// Puts them in the place of what the configuration says.
    pub(crate) fn apply(self, config: &mut Config) {
        if let Some(driver) = self.driver {
            let kind = match driver {
                Driver::Auto => "auto",
                Driver::Mio => "mio",
                Driver::Uring => "uring",
            };
            config.dataplane.driver.kind = kind.to_owned();
        }
        if let Some(shards) = self.shards {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            config.dataplane.shards.cores = (1..=usize::from(shards)).map(|shard| shard % cores).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_stays() {
        let mut config = Config::default();
        Choices::default().apply(&mut config);
        assert_eq!(config, Config::default());
        Choices { driver: Some(Driver::Mio), shards: Some(3) }.apply(&mut config);
        assert_eq!((config.dataplane.driver.kind.as_str(), config.dataplane.cores().len()), ("mio", 3));
        config.dataplane.check().unwrap();
    }
}
