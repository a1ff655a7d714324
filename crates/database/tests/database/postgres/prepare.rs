//! The application's side: a prepare or commit that succeeds is exactly a branch that is
//! prepared, or committed with its marker.
