//! What a packet costs: the parts that the benches are made of.
//!
//! [`scene`] has the services, connections and frames, in both engines; [`wrapper`] runs the XDP program on frames that
//! are fresh at every run; [`net`] takes the wrapper's own cost off.

pub mod net;
pub mod scene;
pub mod wrapper;
