//! Tests with a real Docker Engine, at `DOCKER_HOST` or the platform's socket. They also need
//! `docker-registry`, so that images are pulled by digest.

mod containers;
mod images;
mod isolation;
mod resources;
mod support;
