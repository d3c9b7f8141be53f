#!/usr/bin/env node
// The `weir` command: src/cli.ts on the pinned Node.
process.argv.splice(2, 0, 'src/cli.ts')
await import('./run.mjs')
