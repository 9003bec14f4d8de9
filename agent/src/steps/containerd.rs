//! stub
use crate::look::Look;
use crate::step::*;
use anyhow::Result;
use async_trait::async_trait;
/// s
pub struct Containerd;
#[async_trait(?Send)]
impl Step for Containerd {
    fn name(&self) -> &'static str {
        "containerd"
    }
    fn purpose(&self) -> &'static str {
        ""
    }
    fn stage(&self) -> Stage {
        Stage::Image
    }
    async fn check(&self, _l: Look<'_>) -> Result<Status> {
        Ok(Status::Ready(String::new()))
    }
}
