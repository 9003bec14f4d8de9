//! stub
use crate::look::Look;
use crate::step::*;
use anyhow::Result;
use async_trait::async_trait;
/// s
pub struct Join;
#[async_trait(?Send)]
impl Step for Join {
    fn name(&self) -> &'static str {
        "join"
    }
    fn purpose(&self) -> &'static str {
        ""
    }
    fn stage(&self) -> Stage {
        Stage::Cluster
    }
    async fn check(&self, _l: Look<'_>) -> Result<Status> {
        Ok(Status::Ready(String::new()))
    }
}
