//! Who the members of a cluster are, where the configuration does not name them: somebody is asked.

pub(super) mod redis_cluster;
