//! Instructions of the kernel's virtual machine (RFC 9669), written one after the other, with labels for jumps. As much as
//! `program` needs: so nothing has to be compiled by other tools, at build or at run.
//!
//! Deliberately not here: whether a program is sound, which the kernel's verifier says when it is loaded.

/// A register; R10 is the frame's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
}

/// How many octets a load or store moves (RFC 9669 §5, the field `sz`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Size {
    Word = 0x00,
    Half = 0x08,
    Byte = 0x10,
    Double = 0x18,
}

/// 64-bit arithmetic (RFC 9669 §4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op {
    Add = 0x00,
    Sub = 0x10,
    Multiply = 0x20,
    And = 0x50,
    ShiftLeft = 0x60,
    ShiftRight = 0x70,
    Xor = 0xa0,
    Move = 0xb0,
    ShiftSigned = 0xc0,
}

/// When a jump is taken; comparisons without a sign unless they say so (RFC 9669 §4.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum When {
    Equal = 0x10,
    Above = 0x20,
    AnyBit = 0x40,
    Unequal = 0x50,
    SignedAbove = 0x60,
    Below = 0xa0,
}

/// A place to jump to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Label(usize);

const LOAD: u8 = 0x61;
const STORE: u8 = 0x63;
const STORE_IMMEDIATE: u8 = 0x62;
const ATOMIC: u8 = 0xc3;
const ALU: u8 = 0x07;
const JUMP: u8 = 0x05;
const REGISTER: u8 = 0x08;
const SWAP_TO_BIG: u8 = 0xdc;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const WIDE: u8 = 0x18;
/// The immediate of a wide load names a map by its descriptor.
const MAP_FD: u8 = 1;

/// A program in the making.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    code: Vec<u64>,
    labels: Vec<Option<usize>>,
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    fn push(&mut self, code: u8, to: u8, from: u8, offset: i16, immediate: i32) {
        let registers = u64::from(to | from << 4) << 8;
        let offset = u64::from(offset as u16) << 16;
        self.code.push(u64::from(code) | registers | offset | u64::from(immediate as u32) << 32);
    }

    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// What jumps there goes on with the next instruction.
    pub(super) fn place(&mut self, label: Label) {
        let here = self.code.len();
        if let Some(place) = self.labels.get_mut(label.0) {
            *place = Some(here);
        }
    }

    pub(super) fn op(&mut self, op: Op, to: Reg, from: Reg) {
        self.push(ALU | REGISTER | op as u8, to as u8, from as u8, 0, 0);
    }

    pub(super) fn op_value(&mut self, op: Op, to: Reg, value: i32) {
        self.push(ALU | op as u8, to as u8, 0, 0, value);
    }

    /// The lower 16 or 32 bits from the network's order to ours or back; the others become 0.
    pub(super) fn swap(&mut self, register: Reg, bits: i32) {
        self.push(SWAP_TO_BIG, register as u8, 0, 0, bits);
    }

    /// `to = *(from + offset)`
    pub(super) fn load(&mut self, size: Size, to: Reg, from: Reg, offset: i16) {
        self.push(LOAD | size as u8, to as u8, from as u8, offset, 0);
    }

    /// `*(to + offset) = from`
    pub(super) fn store(&mut self, size: Size, to: Reg, offset: i16, from: Reg) {
        self.push(STORE | size as u8, to as u8, from as u8, offset, 0);
    }

    /// `*(to + offset) = value`
    pub(super) fn store_value(&mut self, size: Size, to: Reg, offset: i16, value: i32) {
        self.push(STORE_IMMEDIATE | size as u8, to as u8, 0, offset, value);
    }

    /// `*(to + offset) += from`, 64 bits, whole for all cores.
    pub(super) fn add_atomic(&mut self, to: Reg, offset: i16, from: Reg) {
        self.push(ATOMIC | Size::Double as u8, to as u8, from as u8, offset, Op::Add as i32);
    }

    pub(super) fn jump(&mut self, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.push(JUMP, 0, 0, 0, 0);
    }

    pub(super) fn jump_if(&mut self, left: Reg, when: When, right: Reg, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.push(JUMP | REGISTER | when as u8, left as u8, right as u8, 0, 0);
    }

    pub(super) fn jump_if_value(&mut self, left: Reg, when: When, value: i32, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.push(JUMP | when as u8, left as u8, 0, 0, value);
    }

    /// The address of a map.
    pub(super) fn map(&mut self, to: Reg, descriptor: i32) {
        self.push(WIDE, to as u8, MAP_FD, 0, descriptor);
        self.push(0, 0, 0, 0, 0);
    }

    /// Calls a function of the kernel by number: arguments in R1 to R5, which it spoils, the answer in R0.
    pub(super) fn call(&mut self, function: i32) {
        self.push(CALL, 0, 0, 0, function);
    }

    pub(super) fn exit(&mut self) {
        self.push(EXIT, 0, 0, 0, 0);
    }

    /// The instructions; `None` when a label was never placed, or is too far.
    pub(super) fn finish(mut self) -> Option<Vec<u64>> {
        for (at, label) in &self.jumps {
            let target = (*self.labels.get(label.0)?)?;
            // From the instruction behind the jump.
            let offset = i16::try_from(i64::try_from(target).ok()? - i64::try_from(*at).ok()? - 1).ok()?;
            *self.code.get_mut(*at)? |= u64::from(offset as u16) << 16;
        }
        Some(self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 9669 §3: opcode, registers, offset, immediate.
    #[test]
    fn instructions_are_laid_out_as_the_document_says() {
        let mut asm = Assembler::default();
        let out = asm.label();
        asm.op_value(Op::Move, Reg::R0, -1);
        asm.load(Size::Half, Reg::R3, Reg::R1, 12);
        asm.jump_if_value(Reg::R3, When::Unequal, 8, out);
        asm.store(Size::Word, Reg::R10, -4, Reg::R3);
        asm.place(out);
        asm.exit();
        let code = asm.finish().unwrap();
        let expected: [[u8; 8]; 5] = [
            [0xb7, 0x00, 0, 0, 0xff, 0xff, 0xff, 0xff],
            [0x69, 0x13, 12, 0, 0, 0, 0, 0],
            [0x55, 0x03, 1, 0, 8, 0, 0, 0],
            [0x63, 0x3a, 0xfc, 0xff, 0, 0, 0, 0],
            [0x95, 0x00, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(code, expected.map(u64::from_le_bytes));
    }

    #[test]
    fn a_label_that_is_nowhere_is_no_program() {
        let mut asm = Assembler::default();
        let nowhere = asm.label();
        asm.jump(nowhere);
        assert_eq!(asm.finish(), None);
    }
}
