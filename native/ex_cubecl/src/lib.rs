//! The NIF library of ExCubecl: Erlang terms in, one call of core, Erlang terms out. Only this
//! crate depends on rustler.

mod atoms;
mod call;
mod cell;
mod error;
mod list;
mod nif;
mod pid;
mod post;
mod reply;
mod resource;
mod term;
mod tree;

rustler::init!("Elixir.ExCubecl.Native");
