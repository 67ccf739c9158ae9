//! tencent
