//! Upload sessions over failures and restarts.
