//! End-to-end tests: the real gehen binary against the local ECS, each a story of one deploy.

mod support;

mod deploys;
