// Jest runs the TypeScript sources as they are: Node blanks out the types (test/strip-types.js), so that lines and
// columns in a failure are the source's own.
export default {
  extensionsToTreatAsEsm: ['.ts'],
  transform: { '\\.ts$': '<rootDir>/test/strip-types.js' },
  testMatch: ['**/*.test.ts'],
  testPathIgnorePatterns: ['/node_modules/', '/dist/', '/fixtures/'],
  modulePathIgnorePatterns: ['/dist/', '/fixtures/'],
  testEnvironment: 'node',
  maxWorkers: 2,
  testTimeout: 60_000,
}
