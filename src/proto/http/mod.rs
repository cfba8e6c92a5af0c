//! HTTP/1.1 and HTTP/2: on hyper, but for HTTP/1.1 to backends, which is ours. A head is written anew from its parsed form and a
//! body is framed anew, so that a backend counts exactly the requests that we count.

mod broken;
mod choice;
mod client;
mod download;
mod entry;
pub mod exchange;
mod fault;
mod forward;
pub mod fuzzing;
mod head;
mod http2;
pub mod hub;
mod line;
mod marks;
mod order;
mod parcel;
pub mod probe;
mod reading;
mod reply;
pub mod routes;
mod service;
pub mod session;
pub mod settings;
mod shared;
mod site;
mod stickiness;
mod toll;
mod trip;
mod tunnel;
mod upload;
mod upstream;
mod watch;
mod writing;

pub use reply::refused;
