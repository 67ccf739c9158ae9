//! acedata
