//! Flow F3 and its races.
