//! The HTTP server: the protocols of ECS, ECR, EventBridge and STS on `POST /`, the load balancer on `/lb/…`.

use std::{
    convert::Infallible,
    net::TcpListener as StdListener,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response,
    body::{Body, Frame, Incoming as IncomingBody},
    header::{HeaderMap, HeaderName, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::oneshot,
    time::Sleep,
};

use crate::{
    faults::Verdict,
    load_balancer::{self, Reply},
    log::Answer,
    model::failure::Failure,
    operations, query,
    state::{Incoming, Shared},
};

type Answered = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// How often the model is brought to the present when nobody asks.
const TICK: Duration = Duration::from_millis(50);

/// What stands before the operation in `X-Amz-Target`, for each service of AWS.
const TARGETS: [(&str, &str); 3] = [
    ("ecs", "AmazonEC2ContainerServiceV20141113."),
    ("ecr", "AmazonEC2ContainerRegistry_V20150921."),
    ("events", "AWSEvents."),
];

/// Serves until told to stop.
pub(crate) async fn serve(shared: Arc<Shared>, listener: StdListener, mut stop: oneshot::Receiver<()>) -> Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = &mut stop => return Ok(()),
            _ = tick.tick() => shared.tick(),
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                drop(stream.set_nodelay(true));
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    if let Some(dropped) = converse(shared, stream).await {
                        // With nothing lingering, the kernel resets the connection instead of closing it in order.
                        drop(dropped.set_zero_linger());
                    }
                });
            }
        }
    }
}

/// Answers the requests that come over one connection; gives the stream back when the connection is to be dropped.
pub(crate) async fn converse<S: AsyncRead + AsyncWrite + Unpin>(shared: Arc<Shared>, stream: S) -> Option<S> {
    let service = service_fn(|request| Box::pin(handle(Arc::clone(&shared), request)));
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let ended = (&mut connection).await;
    ended.is_err().then(|| connection.into_parts().io.into_inner())
}

/// Answers one request; an error drops the connection.
async fn handle(shared: Arc<Shared>, request: Request<IncomingBody>) -> Result<Answered> {
    if request.uri().path().starts_with("/lb/") {
        let reply = load_balancer::answer(&mut shared.now().account, request.uri().path());
        return balanced(reply).await;
    }
    let at = Instant::now();
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let id = shared.now().account.ids.uuid();
    let protocol = if header(&head.headers, "content-type").starts_with("application/x-www-form-urlencoded") {
        Protocol::Query
    } else {
        Protocol::Json
    };
    let understood = understand(protocol, &head.method, &head.headers, &body, at);
    let operation = understood.as_ref().map(|incoming| incoming.operation.clone()).unwrap_or_default();
    let answer = match understood.and_then(|incoming| shared.now().identify(incoming)) {
        // On its own: what has arrived is carried out, also if the client hangs up meanwhile.
        Ok(incoming) => tokio::spawn(async move { ask(&shared, incoming).await }).await??,
        Err(failure) => Err(failure),
    };
    let (status, content) = match (protocol, answer) {
        (Protocol::Json, Ok(content)) => (200, content.to_string()),
        (Protocol::Json, Err(failure)) => {
            (failure.status(), json!({"__type": failure.kind, "message": failure.message}).to_string())
        }
        (Protocol::Query, Ok(content)) => (200, query::answer(&operation, &id, &content)),
        (Protocol::Query, Err(failure)) => query::error(&failure, &id),
    };
    let mut builder = Response::builder().status(status);
    builder = builder.header("x-amzn-requestid", id).header("content-type", protocol.content_type());
    Ok(builder.body(full(content))?)
}

/// How a service of AWS is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Json,
    Query,
}

impl Protocol {
    fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/x-amz-json-1.1",
            Self::Query => "text/xml",
        }
    }
}

/// A header's text, empty if it isn't there.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Lets faults act on a request, then has it carried out.
async fn ask(shared: &Shared, incoming: Incoming) -> Result<Result<Value, Failure>> {
    let (delay, verdict) = shared.now().strike(&incoming).unzip();
    if let Some(delay) = delay.filter(|delay| !delay.is_zero()) {
        tokio::time::sleep(delay).await;
    }
    match verdict {
        Some(Verdict::Answer(failure)) => {
            shared.now().note(incoming, Answer::Error(failure.kind.clone()));
            return Ok(Err(failure));
        }
        Some(Verdict::DropBefore) => {
            shared.now().note(incoming, Answer::Dropped);
            return Err(anyhow!("dropped before anything happened"));
        }
        Some(Verdict::DropAfter) => {
            drop(shared.now().carry_out(incoming, Some(Answer::Dropped)));
            return Err(anyhow!("dropped after it took effect"));
        }
        Some(Verdict::FailEntries { id, failure }) => {
            return Ok(shared.now().carry_out_but(incoming, id.as_deref(), &failure));
        }
        Some(Verdict::AnswerInstead(answer)) => {
            drop(shared.now().carry_out(incoming, Some(Answer::Ok)));
            return Ok(Ok(answer));
        }
        Some(Verdict::Pass) | None => {}
    }
    Ok(shared.now().carry_out(incoming, None))
}

/// Reads a request.
fn understand(
    protocol: Protocol,
    method: &Method,
    headers: &HeaderMap,
    body: &[u8],
    at: Instant,
) -> Result<Incoming, Failure> {
    let (name, operation, body) = match protocol {
        Protocol::Json => {
            let target = header(headers, "x-amz-target");
            let mut operations =
                TARGETS.iter().filter_map(|(name, prefix)| Some((*name, target.strip_prefix(prefix)?)));
            let (name, operation) = operations.next().unwrap_or_default();
            (name, operation.to_owned(), if body.is_empty() { Ok(json!({})) } else { serde_json::from_slice(body) })
        }
        Protocol::Query => {
            let form = query::read(body);
            ("sts", form.get("Action").and_then(Value::as_str).unwrap_or_default().to_owned(), Ok(form))
        }
    };
    if method != Method::POST || operations::service_name(&operation) != name {
        return Err(match protocol {
            Protocol::Json => Failure::new("UnknownOperationException", "Unknown operation."),
            Protocol::Query => Failure::new("InvalidAction", format!("Could not find operation {operation}")),
        });
    }
    let authorization = header(headers, "authorization");
    let credential = authorization.split("Credential=").nth(1).and_then(|rest| rest.split([',', ' ']).next());
    let mut scope = credential.unwrap_or_default().split('/');
    let (caller, region) = (scope.next().unwrap_or_default(), scope.nth(1).unwrap_or_default());
    if region.is_empty() {
        return Err(Failure::new("MissingAuthenticationTokenException", "Missing Authentication Token"));
    }
    let body = body.map_err(|_| Failure::new("SerializationException", "The request's body is not JSON."))?;
    Ok(Incoming {
        at,
        region: region.to_owned(),
        operation,
        body,
        caller: caller.to_owned(),
        token: header(headers, "x-amz-security-token").to_owned(),
        identity: String::new(),
        user_agent: header(headers, "user-agent").to_owned(),
    })
}

async fn balanced(reply: Reply) -> Result<Answered> {
    match reply {
        Reply::Answer { status, headers, body } => Ok(with_headers(status, &headers)?.body(full(body))?),
        Reply::Never => std::future::pending().await,
        Reply::Flood => Ok(Response::new(Flood.boxed_unsync())),
        Reply::Trickle { headers, every } => Ok(with_headers(200, &headers)?.body(Trickle::new(every).boxed_unsync())?),
    }
}

fn with_headers(status: u16, headers: &[(String, String)]) -> Result<hyper::http::response::Builder> {
    let mut builder = Response::builder().status(status);
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes())?;
        builder = builder.header(name, HeaderValue::from_bytes(value.as_bytes())?);
    }
    Ok(builder)
}

fn full(text: String) -> UnsyncBoxBody<Bytes, Infallible> {
    Full::new(Bytes::from(text)).boxed_unsync()
}

/// A body that goes on for ever, as fast as it is taken.
struct Flood;

impl Body for Flood {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'.'; 16 * 1024])))))
    }
}

/// A body that goes on for ever, a byte at a time.
struct Trickle {
    every: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl Trickle {
    fn new(every: Duration) -> Self {
        Self { every, sleep: Box::pin(tokio::time::sleep(Duration::ZERO)) }
    }
}

impl Body for Trickle {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        ready!(self.sleep.as_mut().poll(context));
        self.sleep = Box::pin(tokio::time::sleep(self.every));
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b".")))))
    }
}
