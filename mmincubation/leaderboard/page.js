'use strict';
// Sorting and filters. Without this script the page shows the same tables.

function compare(a, b, number) {
  return number ? Number(a) - Number(b) : a.localeCompare(b, 'en', { numeric: true });
}

function sortBy(table, head, column) {
  const number = head.classList.contains('number');
  const before = head.getAttribute('aria-sort');
  // A number is wanted the best first, a name from A to Z; the second click turns the order.
  const up = before ? before === 'descending' : !number;
  const value = (body) => body.rows[0].cells[column].dataset.value;
  const bodies = [...table.tBodies].sort((a, b) => {
    const missing = (value(a) === '') - (value(b) === '');  // what has no number is last in both orders
    return missing || (up ? 1 : -1) * compare(value(a), value(b), number);
  });
  for (const other of table.tHead.rows[0].cells) other.removeAttribute('aria-sort');
  head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
  table.append(...bodies);
}

for (const table of document.querySelectorAll('table.board')) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.append(...head.childNodes);
    button.addEventListener('click', () => sortBy(table, head, column));
    head.append(button);
  });
}

const filters = document.querySelector('.filters');
const choices = [...filters.querySelectorAll('select')];

function filter() {
  const wanted = choices.filter((choice) => choice.selectedIndex > 0);  // the first option is `all`
  const bodies = [...document.querySelectorAll('table.board > tbody')];
  for (const body of bodies) body.hidden = wanted.some((choice) => body.dataset[choice.name] !== choice.value);
  for (const section of document.querySelectorAll('section')) {
    section.hidden = ![...section.querySelectorAll('table.board > tbody')].some((body) => !body.hidden);
  }
  const shown = bodies.filter((body) => !body.hidden).length;
  filters.querySelector('output').textContent = `${shown} of ${bodies.length} rows`;
}

if (choices.length) {
  filters.hidden = false;
  filters.addEventListener('change', filter);
  filter();
}
