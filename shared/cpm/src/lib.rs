#![forbid(unsafe_code)]
//! CPIM, IMDN, is-composing, conference-info, resource-lists, feature tags, conversation ids.
