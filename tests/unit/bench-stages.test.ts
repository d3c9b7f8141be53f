import { expect, test } from 'vitest'
import type { Profile } from '../../scripts/bench/inspector.ts'
import { attribute, hottest, MAIN_RULES, WRITER_RULES } from '../../scripts/bench/stage-map.ts'

type Frame = readonly [name: string, url: string, hits: number, ...below: Frame[]]

const SRC = 'file:///somewhere/src'

/** A profile with these frames below its root. */
function profileOf(...frames: readonly Frame[]): Profile {
  const nodes: Profile['nodes'] = []
  const add = ([functionName, url, hitCount, ...below]: Frame): number => {
    const id = nodes.length + 1
    const children: number[] = []
    nodes.push({ id, callFrame: { functionName, url, scriptId: '0', lineNumber: 0, columnNumber: 0 }, hitCount, children })
    children.push(...below.map(add))
    return id
  }
  add(['(root)', '', 0, ...frames])
  return { nodes, startTime: 0, endTime: 0 }
}

function stagesOf(profile: Profile, rules = MAIN_RULES): Record<string, readonly [hits: number, own: number]> {
  return Object.fromEntries([...attribute(profile, rules).stages].map(([stage, { hits, own }]) => [stage, [hits, own]]))
}

test('what a library does counts for the nearest stage above it', () => {
  const profile = profileOf([
    'emit',
    'node:events',
    0,
    ['run', `${SRC}/gateway/ingress.ts`, 3, ['dispatch', 'file:///x/node_modules/hono/dist/hono.js', 2, ['hash', '', 1]]],
    ['hashKey', `${SRC}/base/ids.ts`, 4],
  ])
  expect(stagesOf(profile)).toEqual({ ingress: [6, 3], other: [4, 0] })
})

test('a library that no stage has called counts for itself', () => {
  const profile = profileOf(
    ['onParserExecute', 'node:_http_server', 5],
    ['readMore', 'file:///x/node_modules/undici/lib/dispatcher/client-h1.js', 2, ['onResponseData', `${SRC}/upstream/pool.ts`, 1]],
  )
  expect(stagesOf(profile)).toEqual({ 'Node: HTTP': [5, 0], forward: [3, 1] })
})

test('socket writes, wake-ups and collections are stages of their own; idle time is none', () => {
  const profile = profileOf(
    ['(idle)', '', 100],
    ['(garbage collector)', '', 7],
    ['send', `${SRC}/gateway/reply.ts`, 1, ['writev', '', 2]],
    ['flush', `${SRC}/storage/journal/client.ts`, 1, ['postMessage', '', 9]],
  )
  expect(attribute(profile, MAIN_RULES).busy).toBe(20)
  expect(stagesOf(profile)).toEqual({
    'garbage collection': [7, 0],
    relay: [1, 1],
    'writing to sockets': [2, 0],
    'journal: rows handed over, commits heard': [1, 1],
    'waking the other thread': [9, 0],
  })
})

test('the commit is apart from the rows it commits', () => {
  const commit: Frame = ['inTransaction', `${SRC}/storage/journal/rows.ts`, 1, ['exec', '', 8], ['run', '', 3]]
  expect(stagesOf(profileOf(commit), WRITER_RULES)).toEqual({ 'rows into SQLite': [4, 1], 'commit with fsync': [8, 0] })
})

test('the hottest functions are named with their place', () => {
  const profile = profileOf(['a', `${SRC}/gateway/quote.ts`, 2, ['a', `${SRC}/gateway/quote.ts`, 3]], ['b', '', 4], ['c', '', 1])
  expect(hottest(profile, 2)).toEqual([
    ['a src/gateway/quote.ts:1', 5],
    ['b', 4],
  ])
})
