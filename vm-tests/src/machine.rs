/// x
pub const HOST: &str = "10.0.2.2";
