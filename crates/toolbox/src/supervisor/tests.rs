mod calls;
mod deployments;
mod engine;
mod fakes;
mod faults;
mod health;
mod images;
mod personal;
mod random;

pub(super) use self::fakes::FakeSink;
use self::fakes::clock;
