"""What the page does in the browser, before anything is asked of the server."""

# A click may come before the map of the one before it is drawn: it goes on from what is wanted, not from what is shown.
# The last layer stays; of the window the nearer end moves, of two that are equally near the first.
ON_CLICK = """
let wanted = null;
const shown = () => {
  const inside = [...element.querySelectorAll('thead .icm-inside')].map((each) => Number(each.dataset.step));
  const pressed = [...element.querySelectorAll('button[aria-pressed=true]')].map((each) => each.dataset.layer);
  return {layers: pressed, first: Math.min(...inside), last: Math.max(...inside)};
};
const told = (each) => JSON.stringify({...each, layers: [...each.layers].sort()});
new MutationObserver(() => {
  if (wanted && told(wanted) === told(shown())) wanted = null;
}).observe(element, {childList: true, subtree: true});
document.addEventListener('pointerdown', (event) => {
  if (!element.contains(event.target)) wanted = null;
}, true);
element.addEventListener('click', (event) => {
  const place = event.target.closest('[data-layer], [data-step]');
  if (!place) return;
  const next = wanted || shown(), {layer, step} = place.dataset;
  if (layer) {
    const others = next.layers.filter((each) => each !== layer);
    next.layers = next.layers.includes(layer) ? (others.length ? others : next.layers) : [...others, layer];
  } else if (Math.abs(step - next.first) <= Math.abs(step - next.last)) {
    next.first = Number(step);
    next.last = Math.max(next.first, next.last);
  } else {
    next.last = Number(step);
  }
  wanted = next;
  trigger('click', next);
});
"""
# A slider's number may be empty or beyond its ends, until it is left: it counts as what it will be then.
SLIDERS = {8: "icm-position", 10: "icm-first-step", 11: "icm-last-step"}
"""Their places among what is asked."""
IN_RANGE = """(...values) => {
  for (const [place, name] of Object.entries(SLIDERS)) {
    const range = document.querySelector(`#${name} input[type=range]`);
    if (range) values[place] = Math.min(Math.max(Number(values[place]) || 0, Number(range.min)), Number(range.max));
  }
  return values;
}""".replace("SLIDERS", repr(SLIDERS))
