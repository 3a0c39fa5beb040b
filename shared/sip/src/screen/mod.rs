//! What a UAS or registrar answers before any service logic (RFC 3261 §8.2, §10.3).
//!
//! Two steps. [`wellformed`] looks at what every role needs: mandatory headers, and headers that break their
//! grammar; the [`crate::Stack`] runs it on all that arrives. [`Rules::screen`] then gives the answers that
//! depend on what this server supports; the process runs it on each request that the stack hands up.

mod rules;
mod wellformed;

pub use rules::Rules;
pub use wellformed::wellformed;

#[cfg(test)]
mod tests;
