/**
 * The seed of a property test: `$WEIR_TEST_SEED`, else a new one. Printed, so that a failure can be run again.
 */
export function propertySeed(): number {
  const given = process.env['WEIR_TEST_SEED']
  const seed = given === undefined ? Math.floor(Math.random() * 0x7fffffff) : Number(given)
  if (!Number.isInteger(seed)) throw new Error(`WEIR_TEST_SEED must be an integer, not ${given}`)
  console.info(`property seed ${seed} (WEIR_TEST_SEED=${seed} runs it again)`)
  return seed
}
