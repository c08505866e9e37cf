//! The packet pipeline.
#![no_std]
