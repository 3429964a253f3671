//! Scenarios with a point to make: lines in a certain state for hours, days or weeks.
