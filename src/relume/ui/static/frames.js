// Numbers as the server packs them: see ui/answers/frames.py.

export function decode(buffer) {
  const bytes = new Uint8Array(buffer);
  if (new TextDecoder().decode(bytes.subarray(0, 8)) !== "RELUMEF1") throw new Error("these are no numbers of relume");
  const length = Number(new DataView(buffer).getBigUint64(8, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(16, 16 + length)));
  const numbers = new Float64Array(buffer, 16 + length);
  const series = header.series.map((entry) => {
    const columns = {};
    entry.columns.forEach((name, place) => {
      const start = entry.offset + place * entry.length;
      columns[name] = numbers.subarray(start, start + entry.length);
    });
    return { ...entry, columns };
  });
  return { ...header, series };
}
