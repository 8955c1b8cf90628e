// The few pictures of the page, drawn in the text's colour.
const box = { width: 20, height: 20, viewBox: "0 0 24 24", fill: "none", stroke: "currentColor", strokeWidth: 1.8, strokeLinecap: "round", strokeLinejoin: "round", "aria-hidden": true } as const;

export const Logo = () => <img className="logo" src="/icon.svg" alt="" width={30} height={30} />;
export const SunIcon = () => (
  <svg {...box}>
    <circle cx="12" cy="12" r="4" />
    <path d="M12 2.500v2M12 19.500v2M2.500 12h2M19.500 12h2M5.300 5.300l1.400 1.400M17.300 17.300l1.400 1.400M18.700 5.300l-1.400 1.400M6.700 17.300l-1.400 1.400" />
  </svg>
);
export const MoonIcon = () => (
  <svg {...box}>
    <path d="M20 14.500A8.200 8.200 0 0 1 9.500 4 8.200 8.200 0 1 0 20 14.500z" />
  </svg>
);
export const DoorIcon = () => (
  <svg {...box}>
    <path d="M14 4h4a2 2 0 0 1 2 2v12a2 2 0 0 1-2 2h-4M4 12h11M11 8l4 4-4 4" />
  </svg>
);
export const TreeIcon = () => (
  <svg {...box}>
    <path d="M5 5h5M8 5v12h4M8 11h4M14 9h6v4h-6zM14 15h6v4h-6z" />
  </svg>
);
export const ChartIcon = () => (
  <svg {...box}>
    <path d="M4 4v16h16M7 15l4-5 3 3 5-7" />
  </svg>
);
export const PlantIcon = () => (
  <svg {...box}>
    <path d="M3 20V10l6 4v-4l6 4V5h5v15zM7 17h2M12 17h2" />
  </svg>
);
export const BrokerIcon = () => (
  <svg {...box}>
    <circle cx="12" cy="12" r="3" />
    <path d="M12 9V4M12 15v5M9 12H4M15 12h5M7 7L5 5M17 7l2-2M7 17l-2 2M17 17l2 2" />
  </svg>
);
export const PenIcon = () => (
  <svg {...box} width={14} height={14}>
    <path d="M4 20l1-4L16 5l3 3L8 19z" />
  </svg>
);
export const SearchIcon = () => (
  <svg {...box} width={16} height={16}>
    <circle cx="11" cy="11" r="6" />
    <path d="M16 16l4 4" />
  </svg>
);
export const ChevronIcon = ({ open }: { open: boolean }) => (
  <svg {...box} width={14} height={14} className={open ? "chevron open" : "chevron"}>
    <path d="M9 6l6 6-6 6" />
  </svg>
);
