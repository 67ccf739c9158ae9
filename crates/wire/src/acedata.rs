//! The AceData wire.
