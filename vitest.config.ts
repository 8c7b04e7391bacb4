import { configDefaults, defineConfig } from 'vitest/config'

/** Time limits are for what hangs, not for what is slow: the lab's kernel runs under emulation. */
const minutes = 60_000

export default defineConfig({
  test: {
    projects: [
      { test: { name: 'unit', include: ['test/unit/**/*.test.ts'], testTimeout: 2 * minutes } },
      {
        test: {
          name: 'kernel',
          include: ['test/kernel/**/*.test.ts'],
          exclude: [...configDefaults.exclude, 'test/kernel/here/**'],
          testTimeout: 5 * minutes,
          hookTimeout: 5 * minutes,
          fileParallelism: false,
        },
      },
      // At a machine's own speed: processes that race each other, of which under emulation one always wins, and what takes
      // long there and is the same on all kernels.
      { test: { name: 'here', include: ['test/kernel/here/*.test.ts'], testTimeout: 5 * minutes } },
      {
        test: {
          name: 'package',
          include: ['test/package/**/*.test.ts'],
          testTimeout: 10 * minutes,
          hookTimeout: 2 * minutes,
        },
      },
      { test: { name: 'lab', include: ['test/lab/**/*.test.ts'], testTimeout: 10 * minutes, fileParallelism: false } },
    ],
  },
})
