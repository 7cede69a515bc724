//! The protocol on the wire: both eras, and every bad input with a clear answer and nothing lost.

mod bad_input;
mod demo;
mod files;
mod following;
mod http;
mod independent_client;
mod inspector;
mod inspector_toolbox;
mod policy;
mod readme;
mod resources;
mod rest;
mod rest_description;
mod rest_operators;
mod rest_server;
mod revisions;
mod sharing;
mod usage;
