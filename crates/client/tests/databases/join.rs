//! Databases in distributed transactions, and MariaDB branches on their own sessions (MY3).
