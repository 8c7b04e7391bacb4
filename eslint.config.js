import js from '@eslint/js'
import prettier from 'eslint-config-prettier'
import ts from 'typescript-eslint'

/** Which rooms of lib/ a room may import from: DESIGN's one-way table. A room not named in a list is out of its reach. */
const outOfReach = {
  base: ['kernel', 'host', 'overlay', 'masquerade', 'vxlan', 'node', 'demo', 'cli', 'native.js'],
  kernel: ['host', 'overlay', 'masquerade', 'vxlan', 'node', 'demo', 'cli'],
  host: ['overlay', 'masquerade', 'vxlan', 'node', 'demo', 'cli', 'native.js'],
  overlay: ['host', 'masquerade', 'node', 'demo', 'cli', 'native.js'],
  masquerade: ['host', 'overlay', 'vxlan', 'node', 'demo', 'cli', 'native.js'],
  vxlan: ['host', 'overlay', 'masquerade', 'node', 'demo', 'cli', 'native.js'],
  node: ['host', 'overlay', 'masquerade', 'vxlan', 'demo', 'cli', 'native.js'],
  demo: ['cli', 'native.js'],
  cli: ['native.js'],
}

export default ts.config(
  { ignores: ['build/', 'dist/', 'prebuilds/', 'test/data/'] },
  js.configs.recommended,
  {
    files: ['**/*.ts'],
    extends: [ts.configs.strictTypeChecked, ts.configs.stylisticTypeChecked],
    languageOptions: { parserOptions: { project: 'test/tsconfig.json', tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      '@typescript-eslint/no-non-null-assertion': 'off',
      '@typescript-eslint/prefer-for-of': 'off',
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true }],
      '@typescript-eslint/explicit-module-boundary-types': 'error',
      '@typescript-eslint/no-unused-vars': [
        'error',
        { destructuredArrayIgnorePattern: '^_', argsIgnorePattern: '^_', ignoreRestSiblings: true },
      ],
      eqeqeq: 'error',
      'no-console': 'error',
    },
  },
  ...Object.entries(outOfReach).map(([room, rooms]) => ({
    files: [`lib/${room}/**/*.ts`],
    rules: {
      'no-restricted-imports': [
        'error',
        { patterns: rooms.map((other) => ({ group: [`../${other}`, `../${other}/*`] })) },
      ],
    },
  })),
  { files: ['test/**/*.ts', 'bench/**/*.ts', 'lib/cli/**/*.ts'], rules: { 'no-console': 'off' } },
  { files: ['**/*.js'], languageOptions: { globals: { process: 'readonly', console: 'readonly' } } },
  prettier,
)
