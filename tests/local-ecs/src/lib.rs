//! An ECS on 127.0.0.1, with the parts of ECR, EventBridge and STS that a deploy meets, that speaks the real wire
//! protocol and moves in time, for gehen's tests and demo.
//!
//! ```
//! use local_ecs::{LocalEcs, Settings, service};
//!
//! let ecs = LocalEcs::start(Settings::fast());
//! ecs.create(service("api").running("0ld5ha1"));
//! assert_eq!(ecs.runs("api"), "0ld5ha1");
//! ```

mod behaviour;
mod builder;
mod faults;
mod limits;
mod load_balancer;
mod local;
mod log;
mod model;
mod operations;
mod query;
mod rule;
mod server;
mod settings;
mod state;
mod tls;
mod view;

pub use behaviour::Behaviour;
pub use builder::{ServiceBuilder, ecr_image, image, service};
pub use faults::Fault;
pub use local::{LocalEcs, StopCode};
pub use log::{Answer, Moment, Request};
pub use model::{events::What, failure::Failure};
pub use rule::{RuleBuilder, rule};
pub use settings::{Limits, Settings};
pub use tls::Certificate;
pub use view::View;
