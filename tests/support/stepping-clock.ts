/**
 * Loaded before a process's own code: its wall clock is off by `WEIR_TEST_CLOCK_OFF_MS`, and is set by twice as much the other way on
 * SIGUSR2, as an operator or a time server may do at any moment. What measures durations does not change.
 */
const off_ms = Number(process.env['WEIR_TEST_CLOCK_OFF_MS'] ?? 0)
const real = Date.now.bind(Date)
let by_ms = off_ms
Date.now = () => real() + by_ms
process.on('SIGUSR2', () => {
  by_ms = by_ms === off_ms ? -off_ms : off_ms
})
