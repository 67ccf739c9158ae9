//! The Tencent Cloud API 3.0 wire.
