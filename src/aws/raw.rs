//! Bodies as they travel: answers kept as they came, and requests sent as they are, so that no field is lost that the
//! SDK doesn't know.

use std::sync::{Arc, Mutex};

use aws_sdk_ecs::{
    config::{
        ConfigBag, Intercept, RuntimeComponents, http::HttpRequest,
        interceptors::AfterDeserializationInterceptorContextRef,
    },
    error::BoxError,
};
use aws_smithy_types::body::SdkBody;

/// Keeps the body of an answer as it came over the wire.
#[derive(Clone, Debug, Default)]
pub struct KeepBody(Arc<Mutex<Vec<u8>>>);

impl KeepBody {
    /// The body of the answer that came last.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().expect("nobody panics while holding the lock"))
    }
}

impl Intercept for KeepBody {
    fn name(&self) -> &'static str {
        "KeepBody"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body = context.response().body().bytes().unwrap_or_default().to_vec();
        *self.0.lock().expect("nobody panics while holding the lock") = body;
        Ok(())
    }
}

/// What puts `body` into a request, in the place of what the SDK wrote, before it is signed.
pub fn with_body(body: Vec<u8>) -> impl Fn(&mut HttpRequest) + Send + Sync + 'static {
    move |request| {
        request.headers_mut().insert("content-length", body.len().to_string());
        *request.body_mut() = SdkBody::from(body.clone());
    }
}
