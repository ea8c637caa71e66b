//! Tests with a real Docker Engine, at `DOCKER_HOST` or the platform's socket. They also need root and
//! `docker-registry`, so that images are pulled by digest; without these, they are ignored.

mod containers;
mod images;
mod isolation;
mod resources;
mod support;
