// The nodes of a model's graph as a tree of modules, and where each stands: layer by layer, group within group.

const [NODE_HEIGHT, GAP_X, GAP_Y, HEAD, PADDING, LETTER] = [30, 18, 26, 28, 14, 7.3];
const MOST_ACROSS = 90;

// Groups by the scopes in the nodes' names: "layer1/0/conv1/conv2d". A group that would hold a single node is that node.
export function treeOf(nodes) {
  const root = { id: "", label: "model", children: [], parent: null, order: 0, isGroup: true };
  const groups = new Map([["", root]]);
  const leaves = new Map();
  nodes.forEach((node, order) => {
    const path = String(node.id).split("/");
    let parent = root;
    for (let depth = 1; depth < path.length; depth += 1) {
      const id = path.slice(0, depth).join("/");
      if (!groups.has(id)) {
        const group = { id, label: path[depth - 1], children: [], parent, order, isGroup: true };
        groups.set(id, group);
        parent.children.push(group);
      }
      parent = groups.get(id);
    }
    const leaf = { id: node.id, label: path.at(-1), node, parent, order, isGroup: false };
    parent.children.push(leaf);
    leaves.set(node.id, leaf);
  });
  folded(root);
  counted(root);
  return { root, groups, leaves };
}

function folded(group) {
  group.children = group.children.flatMap((child) => {
    if (!child.isGroup) return [child];
    folded(child);
    const { children } = child;
    if (children.length === 1) {
      children[0].label = children[0].isGroup ? `${child.label}/${children[0].label}` : child.label;
      return children;
    }
    return isCalledAgain(children) ? children : [child];
  });
  for (const child of group.children) child.parent = group;
}

// One module in several places, as a ReLU that a block uses three times: its calls stand where they are, or edges would go in
// circles.
function isCalledAgain(children) {
  const own = new Set(children.map((child) => child.id));
  const isAlone = ({ node }) => node.kind === children[0].node.kind && !node.inputs?.some((id) => own.has(id));
  return children.every((child) => !child.isGroup && isAlone(child))
    && children.some((child) => child.node.inputs?.length);
}

function counted(one) {
  one.size = one.isGroup ? one.children.reduce((sum, child) => sum + counted(child), 0) : 1;
  return one.size;
}

// What stands for a node at one level: itself, or the group there that holds it.
function standing(leaf, group) {
  let one = leaf;
  while (one && one.parent !== group) one = one.parent;
  return one;
}

function within(group) {
  return group.children.flatMap((child) => (child.isGroup ? within(child) : [child]));
}

function edgesOf(group, leaves) {
  const found = new Map();
  for (const leaf of within(group)) {
    const to = standing(leaf, group);
    for (const input of leaf.node.inputs ?? []) {
      const source = leaves.get(input);
      const from = source ? standing(source, group) : null;
      if (!from || from === to) continue;
      const key = `${from.id}\n${to.id}`;
      const known = found.get(key);
      if (known) known.count += 1;
      else found.set(key, { from, to, count: 1, shape: source.node.shape, isBack: from.order > to.order });
    }
  }
  return [...found.values()];
}

// Sets x, y (of the middle of its top, within its group), width and height of all that is seen below `group`.
export function place(group, tree, isOpen) {
  for (const child of group.children) {
    child.isOpen = child.isGroup && isOpen(child);
    if (child.isOpen) place(child, tree, isOpen);
    else {
      child.width = Math.min(240, Math.max(70, labelOf(child).length * LETTER + 26));
      child.height = NODE_HEIGHT;
    }
  }
  group.edges = edgesOf(group, tree.leaves);
  const rows = layered(group);
  let y = group.parent ? HEAD : 0;
  for (const row of rows) {
    const width = row.reduce((sum, child) => sum + child.width, 0) + GAP_X * (row.length - 1);
    let x = -width / 2;
    for (const child of row) {
      child.x = x + child.width / 2;
      child.y = y;
      x += child.width + GAP_X;
    }
    row.across = width;
    y += Math.max(...row.map((child) => child.height)) + GAP_Y;
  }
  group.width = Math.max(group.parent ? labelOf(group).length * LETTER + 60 : 0, ...rows.map((row) => row.across)) + 2 * PADDING;
  group.height = y - GAP_Y + PADDING;
}

export function labelOf(one) {
  const text = one.isGroup ? `${one.label}  (${one.size})` : one.label;
  return text.length > 30 ? `${text.slice(0, 29)}…` : text;
}

// Each as deep as its longest way from an input, but no deeper than it need be; in a row, beside what it gets its input from.
function layered({ children, edges }) {
  const forward = edges.filter((edge) => !edge.isBack);
  const into = groupedBy(forward, "to");
  const out = groupedBy(forward, "from");
  const depth = new Map();
  const order = [...children].sort((a, b) => a.order - b.order);
  for (const child of order) depth.set(child, Math.max(0,
    ...(into.get(child) ?? []).map((edge) => (depth.get(edge.from) ?? 0) + 1)));
  for (const child of [...order].reverse()) { // what has no inputs stands right above its user
    const users = (out.get(child) ?? []).map((edge) => depth.get(edge.to));
    if (users.length && !(into.get(child) ?? []).length) depth.set(child, Math.max(0, Math.min(...users) - 1));
  }
  const rows = [];
  for (const child of order) (rows[depth.get(child)] ??= []).push(child);
  const kept = rows.filter(Boolean).flatMap((row) => split(row));
  const position = new Map();
  for (const row of kept) {
    const wish = (child) => {
      const from = (into.get(child) ?? []).map((edge) => position.get(edge.from)).filter((at) => at !== undefined);
      return from.length ? from.reduce((sum, at) => sum + at, 0) / from.length : 0;
    };
    row.sort((a, b) => wish(a) - wish(b) || a.order - b.order);
    row.forEach((child, at) => position.set(child, at - (row.length - 1) / 2));
  }
  return kept;
}

// A row of very many (modules without edges) goes on in the next.
function split(row) {
  if (row.length <= MOST_ACROSS) return [row];
  return Array.from({ length: Math.ceil(row.length / 12) }, (_, at) => row.slice(12 * at, 12 * at + 12));
}

function groupedBy(edges, end) {
  const found = new Map();
  for (const edge of edges) {
    if (!found.has(edge[end])) found.set(edge[end], []);
    found.get(edge[end]).push(edge);
  }
  return found;
}
