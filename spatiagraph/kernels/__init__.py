"""The few numerical primitives that decide speed: one signature, several backends."""
