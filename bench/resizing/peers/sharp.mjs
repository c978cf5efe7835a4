// sharp as its manual tells: upright, sRGB, stripped; two pictures at a time, one thread each.
import { createRequire } from 'node:module'
import { readdirSync } from 'node:fs'
import { join, parse } from 'node:path'

const [home, source, into, suffix, ...sizes] = process.argv.slice(2)
const sharp = createRequire(join(home, 'package.json'))('sharp')
sharp.cache(false)
sharp.concurrency(1)

const paths = readdirSync(source).sort().map(name => join(source, name))

async function work() {
  for (let path; (path = paths.shift());) {
    for (const size of sizes.map(Number)) {
      const small = sharp(path).autoOrient().resize(size, size, { fit: 'inside', withoutEnlargement: true })
      const whole = suffix === '.jpg' ? small.jpeg({ quality: 82, optimiseCoding: false }) : small.png()
      await whole.toFile(join(into, `${size}-${parse(path).name}${suffix}`))
    }
  }
}

await Promise.all([work(), work()])
