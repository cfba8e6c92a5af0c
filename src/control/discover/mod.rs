//! Who knows the members of clusters that do not name them: asked again and again, and at once when
//! something has happened. Not what follows from the answers: that is [`super::membership`].

mod council;
pub(super) mod redis_cluster;
mod sentinel;

pub(super) use sentinel::Council;
