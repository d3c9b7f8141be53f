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

/** How many runs a model of a whole port makes: `$WEIR_PROPERTY_RUNS`, else `usual`. */
export function propertyRuns(usual: number): number {
  const runs = Number(process.env['WEIR_PROPERTY_RUNS'] ?? usual)
  if (!Number.isInteger(runs) || runs < 1) throw new Error('WEIR_PROPERTY_RUNS must be a whole number from 1 on')
  return runs
}
