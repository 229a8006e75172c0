import { randomInt } from 'node:crypto';

const ADJECTIVES =
  'amber bold brave brisk calm clear clever cosy crisp deft eager early fair fleet fresh gentle glad golden grand happy hardy jolly keen kind lively lucky mellow merry mild neat nimble noble plucky proud quick quiet rapid ready royal silver smart snowy spry steady sunny swift tidy vivid warm wise'.split(
    ' ',
  );
const BIRDS =
  'avocet bittern bunting condor crane curlew dipper dove dunlin eagle egret eider falcon finch fulmar gannet godwit goose grebe grouse gull harrier heron hobby ibis jackdaw jay kestrel kite knot lapwing lark linnet magpie martin merlin osprey ouzel owl petrel pipit plover puffin quail raven redstart robin rook ruff shrike siskin snipe sparrow starling stork swallow swan swift teal tern thrush wagtail warbler whimbrel wigeon wren'.split(
    ' ',
  );

/** A subdomain that is easy to say and hard to guess by chance: one of some 30 million, such as `swift-heron-4821`. */
export function randomName(): string {
  return `${pick(ADJECTIVES)}-${pick(BIRDS)}-${randomInt(1000, 10_000)}`;
}

function pick(words: readonly string[]): string {
  return words[randomInt(words.length)] ?? 'swift';
}
