//! Stub, replaced soon.
#[derive(Clone, PartialEq, Eq)]
/// s
pub struct Secret(String);
impl Secret {
    /// e
    pub fn expose(&self) -> &str {
        &self.0
    }
    /// n
    pub fn new(s: &str) -> Self {
        Self(s.to_owned())
    }
}
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}
/// c
#[derive(Clone, Debug, Default)]
pub struct Config {}
