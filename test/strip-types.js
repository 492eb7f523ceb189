// Jest's transform: types become blanks, nothing else changes.
import { stripTypeScriptTypes } from 'node:module'

export default {
  process: (source, path) => ({ code: stripTypeScriptTypes(source, { sourceUrl: path }) }),
}
