//! Tests with a real Docker Engine, at `DOCKER_HOST` or the platform's socket. They also need root, and
//! `docker-registry`, from which images are pulled by digest. Without these, they are ignored.

mod containers;
mod images;
mod isolation;
mod resources;
mod support;
