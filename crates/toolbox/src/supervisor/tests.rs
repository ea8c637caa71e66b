mod calls;
mod deployments;
mod engine;
mod fakes;
mod faults;
mod health;
mod random;

use self::fakes::clock;
