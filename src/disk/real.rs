//! Real.
/// x
#[derive(Debug)]
pub struct RealDisk;
